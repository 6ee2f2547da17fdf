{#- For an incremental model over rows that are only ever added, in the order of the integer `key`: before each pass it
    empties the table unless it is the beginning of what `source` has now, made by the SQL of today; then it sets the
    variable `<model>_through` to the last key that the table has. All in the transaction of the model, so that a pass
    that is killed or fails leaves nothing half done. Rows that came late, rows that were lost and found again, another
    ledger and another version of the model all end in a table made anew. -#}
{% macro keep_beginning(key, source) -%}
    {%- set code = rule_code([model.name], []) | trim -%}
    create table if not exists {{ this.schema }}.grown_models (model varchar, code varchar);
    {% if is_incremental() %}
    delete from {{ this }}
    where
        not exists (
            select 1 from {{ this.schema }}.grown_models where model = '{{ model.name }}' and code = '{{ code }}'
        )
        or (select count(*) from {{ this }}) <> (
            select count(*) from {{ source }} where {{ key }} <= (select max({{ key }}) from {{ this }})
        )
        or not exists (
            select 1
            from (select * from {{ this }} order by {{ key }} desc limit 1) as ours
            inner join {{ source }} as theirs
                on
                    ours.{{ key }} = theirs.{{ key }}
                    and ours.op_id = theirs.op_id
                    and ours.seq = theirs.seq
                    and ours.recorded_at = theirs.recorded_at
        );
    set variable {{ model.name }}_through = (select coalesce(max({{ key }}), 0) from {{ this }});
    {% endif %}
    delete from {{ this.schema }}.grown_models where model = '{{ model.name }}';
    insert into {{ this.schema }}.grown_models values ('{{ model.name }}', '{{ code }}')
{%- endmacro %}
