{% test adds_up_to(model, column_name, total) %}

select sum({{ column_name }}) as total
from {{ model }}
having abs(sum({{ column_name }}) - {{ total }}) > 1e-9

{% endtest %}
