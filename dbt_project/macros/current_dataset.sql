{#- What a record's status counts as: one without a status is ACTIVE. -#}
{% macro known_status(status) -%}
    coalesce(upper(nullif(trim({{ status }}), '')), 'ACTIVE')
{%- endmacro %}

{#- The product of which a record is a version; where the store names none, instrument program and wavelength do.
    Of columns that are null where they are blank. -#}
{% macro product_of() -%}
    coalesce(
        product_id,
        instrument_program_id || ':' || round({{ finite('wavelength_min_nm') }}, 1),
        dataset_id
    )
{%- endmacro %}
