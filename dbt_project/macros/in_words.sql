{#- A number as people write it: so many decimals at most, without trailing zeros. -#}
{% macro decimal_text(number, decimals) -%}
    rtrim(regexp_replace(printf('%.' || {{ decimals }} || 'f', {{ number }}::double), '(\.\d*?)0+$', '\1'), '.')
{%- endmacro %}
