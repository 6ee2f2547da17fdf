{#- Fails for NaN as well: DuckDB sorts NaN above every number, so a plain `>= min` would let it pass. -#}
{% test accepted_range(model, column_name, min=none, max=none, above=none) %}

{%- set bounds = ['isfinite(' ~ column_name ~ '::double)'] -%}
{%- if min is not none %}{% do bounds.append(column_name ~ ' >= ' ~ min) %}{% endif -%}
{%- if max is not none %}{% do bounds.append(column_name ~ ' <= ' ~ max) %}{% endif -%}
{%- if above is not none %}{% do bounds.append(column_name ~ ' > ' ~ above) %}{% endif %}

select *
from {{ model }}
where not ({{ bounds | join(' and ') }})

{% endtest %}
