{#- Apparent solar radius (arcsec) seen from the Earth on the UTC day of a timestamp: the rule's own formula, with the
    Sun's radius 696340 km and the distance 149600000 km (1 - 0.0167 cos(2 pi (n - 3) / 365)) on day-of-year n. -#}
{% macro solar_radius_arcsec(moment) -%}
    atan(
        696340 / (149600000 * (1 - 0.0167 * cos(2 * pi() * (dayofyear({{ moment }}) - 3) / 365)))
    ) * 206265
{%- endmacro %}
