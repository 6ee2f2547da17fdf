{%- set known = ref('int_datasets_known') -%}

-- The status comes first: when the newest version of a product is withdrawn, the one before it is current again. No CTE
-- of what is known: DuckDB would keep one that is read twice with all its columns.
with newest as (
    select
        dataset_id,
        {{ product_of() }} as product_id
    from {{ known }}
    where status = 'ACTIVE'
    qualify row_number() over (
        partition by {{ product_of() }} order by create_date desc, dataset_id desc
    ) = 1
),

final as (
    select
        known.* replace (
            newest.product_id as product_id
        )
    from {{ known }} as known
    inner join newest on known.dataset_id = newest.dataset_id
)

select * from final
