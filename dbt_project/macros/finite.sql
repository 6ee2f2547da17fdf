{#- A double, or null where it is NaN or infinite: DuckDB sorts NaN above every number and calls it equal to itself,
    so an unguarded comparison would let garbage pass. -#}
{% macro finite(number) -%}
    case when isfinite({{ number }}) then {{ number }} end
{%- endmacro %}
