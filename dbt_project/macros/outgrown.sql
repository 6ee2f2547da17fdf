{#- A table that grows by passes and was made by a version with other columns is dropped, and so made anew: what
    a pass adds is compiled for the columns of today. -#}
{% macro drop_outgrown() -%}
    {%- set dropped = [] -%}
    {%- if execute -%}
        {%- for node in graph.nodes.values() if node.config.materialized == 'incremental' -%}
            {%- set table = adapter.get_relation(node.database, node.schema, node.alias) -%}
            {%- if table is not none and table.is_table -%}
                {%- set found = adapter.get_columns_in_relation(table) | map(attribute='name') | sort -%}
                {%- if found != node.columns | sort -%}
                    {%- do adapter.drop_relation(table) or dropped.append(table) -%}
                {%- endif -%}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {#- dbt runs what a hook gives back, and takes back what the hook did when that is nothing. -#}
    {{- 'commit' if dropped -}}
{%- endmacro %}
