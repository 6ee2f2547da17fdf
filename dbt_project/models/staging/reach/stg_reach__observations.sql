with source as (
    select * from {{ source('bronze', 'reach') }}
),

renamed as (
    select
        id as observation_id,
        id_sensor as sensor_id,
        duplicate_key,
        ob_time::timestamp as observed_at,
        descriptor,
        source,
        data_mode,
        id_on_orbit as on_orbit_id,
        sat_no::bigint as satellite_number,
        orig_sensor_id,
        orig_network,
        observatory_type,
        observatory_name,
        instrument_type,
        particle_type,
        lat::double as latitude_deg,
        lon::double as longitude_deg,
        alt::double as altitude_km,
        sen_pos::double[] as sensor_position_km,
        seo_list as measurements,
        ob_set_id as observation_set_id,
        classification_marking,
        data_type,
        gen_time::timestamp as generated_at,
        created_at::timestamp as created_at,
        created_by
    from source
)

select * from renamed
