{#- A text, or null where it is blank: the store writes both for "not recorded". -#}
{% macro not_blank(text) -%}
    case when trim({{ text }}) <> '' then {{ text }} end
{%- endmacro %}
