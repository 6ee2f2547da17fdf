{#- For incremental models over rows that are only ever added, in the order of the integer `key`. What such a table has
    read is kept in `grown_tables`: through which key, how many rows, and which row was the last.

    `keep_beginning` looks before each pass whether that is still the beginning of what `source` has now, and was read by
    the SQL of today. If so, the variable `<model>_through` is the last key that was read; if not, it is 0 and the table
    is emptied, and has another generation from then on. Rows that came late, rows that were lost and found again,
    another ledger and another version of the model all end in a table made anew. Rows are counted from the files'
    own figures, so that a pass reads nothing of what it has read before.

    All in the transaction of the model, so that a pass that is killed or fails leaves nothing half done. -#}
{% macro keep_beginning(key, source) -%}
    {%- set code = rule_code([model.name], []) | trim -%}
    {%- set grown = this.schema ~ '.grown_tables' -%}
    {%- set through = "getvariable('" ~ model.name ~ "_through')" -%}
    {%- set known = "getvariable('" ~ model.name ~ "_known')" -%}
    {%- set fresh = "getvariable('" ~ model.name ~ "_fresh')" -%}
    {{ grown_tables(grown) }};
    set variable {{ model.name }}_known = (
        select coalesce(max(through), 0) from {{ grown }}
        where model = '{{ model.name }}' and code = '{{ code }}' and {{ is_incremental() | lower }}
    );
    set variable {{ model.name }}_fresh = (
        select {
            'row_count': count(*),
            'through': max({{ key }}),
            'of': (select count(*) from {{ source }})
        }
        from {{ source }} where {{ key }} > {{ known }}
    );
    set variable {{ model.name }}_through = (
        select coalesce(max(ours.through), 0)
        from {{ grown }} as ours
        inner join (select * from {{ source }} where {{ key }} = {{ known }}) as theirs
            on ours.op_id = theirs.op_id and ours.seq = theirs.seq and ours.recorded_at = theirs.recorded_at
        where
            ours.model = '{{ model.name }}'
            and ours.row_count = {{ fresh }}.of - {{ fresh }}.row_count
    );
    {% if is_incremental() %}
    delete from {{ this }} where {{ through }} = 0;
    {% endif %}
    insert into {{ grown }}
    select
        '{{ model.name }}_now', '{{ code }}',
        coalesce((select max(generation) from {{ grown }} where model = '{{ model.name }}'), 0)
        + case when {{ through }} = 0 then 1 else 0 end,
        last_row.{{ key }},
        {{ fresh }}.of,
        last_row.op_id, last_row.seq, last_row.recorded_at
    from {{ source }} as last_row
    where
        last_row.{{ key }} = coalesce(
            {{ fresh }}.through,
            case when {{ through }} = 0 then (select max({{ key }}) from {{ source }}) else {{ through }} end
        );
    delete from {{ grown }} where model = '{{ model.name }}';
    update {{ grown }} set model = '{{ model.name }}' where model = '{{ model.name }}_now'
{%- endmacro %}

{#- For an incremental model over the same rows as another, the `leader`, after which it comes in each pass: it is made
    anew when the leader was, and else its `<model>_through` is how far it has read. To read a row twice must do no harm. -#}
{% macro follow(leader) -%}
    {%- set code = rule_code([model.name], []) | trim -%}
    {%- set grown = this.schema ~ '.grown_tables' -%}
    {{ grown_tables(grown) }};
    set variable {{ model.name }}_through = (
        select coalesce(max(ours.through), 0)
        from {{ grown }} as ours
        inner join {{ grown }} as theirs on ours.generation = theirs.generation
        where
            ours.model = '{{ model.name }}'
            and ours.code = '{{ code }}'
            and theirs.model = '{{ leader.name }}'
            and {{ is_incremental() | lower }}
    );
    {% if is_incremental() %}
    delete from {{ this }} where getvariable('{{ model.name }}_through') = 0;
    {% endif %}
    delete from {{ grown }} where model = '{{ model.name }}';
    insert into {{ grown }}
    select * replace ('{{ model.name }}' as model, '{{ code }}' as code)
    from {{ grown }}
    where model = '{{ leader.name }}'
{%- endmacro %}

{% macro grown_tables(grown) -%}
    create table if not exists {{ grown }} (
        model varchar, code varchar, generation bigint, through bigint, row_count bigint,
        op_id varchar, seq bigint, recorded_at timestamp
    )
{%- endmacro %}
