{#- The moment of this build, UTC, the same in every model of one dbt run. -#}
{% macro built_at() -%}
    '{{ run_started_at }}'::timestamp
{%- endmacro %}
