{#- A condition that every row fulfils; a row for which it is null fails too. -#}
{% test holds(model, condition) %}

select *
from {{ model }}
where not coalesce(({{ condition }}), false)

{% endtest %}
