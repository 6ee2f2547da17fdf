{#- One number of a box written as text `(x1,y1),(x2,y2)` in arcsec: position 1 to 4 is x1, y1, x2, y2.
    Null when the text is not a box or the number is not finite, so that garbage never reaches a comparison. -#}
{% macro bounding_box_number(box, position) -%}
    {%- set number = '\\s*([^,()]*?)\\s*' -%}
    {%- set corner = '\\(' ~ number ~ ',' ~ number ~ '\\)' -%}
    {#- Written the same for all four, so that DuckDB matches once. -#}
    {%- set names = "['x1', 'y1', 'x2', 'y2']" -%}
    {%- set box = "regexp_extract(" ~ box ~ ", '^\\s*" ~ corner ~ "\\s*,\\s*" ~ corner ~ "\\s*$', " ~ names ~ ")" -%}
    {{ finite("try_cast(" ~ box ~ "['" ~ ['x1', 'y1', 'x2', 'y2'][position - 1] ~ "'] as double)") }}
{%- endmacro %}
