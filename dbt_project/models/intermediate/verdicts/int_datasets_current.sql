with known as (
    select * from {{ ref('int_datasets_known') }}
),

-- The status comes first: when the newest version of a product is withdrawn, the one before it is current again.
active as (
    select
        * replace (
            {{ product_of() }} as product_id
        )
    from known
    where status = 'ACTIVE'
),

final as (
    select *
    from active
    qualify row_number() over (
        partition by product_id order by create_date desc, dataset_id desc
    ) = 1
)

select * from final
