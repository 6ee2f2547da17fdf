{#- One test for all such columns of a model: they are read in one go, and each test more takes its time in a pass. -#}
{% test never_null(model, columns) %}

select
    *,
    list_filter(
        [
            {%- for column in columns %}
            case when {{ column }} is null then '{{ column }}' end{{ "," if not loop.last }}
            {%- endfor %}
        ],
        lambda name: name is not null
    ) as null_columns
from {{ model }}
where {% for column in columns %}{{ "or " if not loop.first }}{{ column }} is null {% endfor %}

{% endtest %}
