with datasets as (
    select * from {{ ref('int_op_datasets') }}
),

rules as (
    select * from {{ ref('qualification_rules') }}
),

boxes as (
    select
        *,
        {{ bounding_box_number('bounding_box', 1) }} as x1,
        {{ bounding_box_number('bounding_box', 2) }} as y1,
        {{ bounding_box_number('bounding_box', 3) }} as x2,
        {{ bounding_box_number('bounding_box', 4) }} as y2,
        {{ solar_radius_arcsec('start_time') }} as solar_radius_arcsec
    from datasets
    where is_supported
),

-- The farthest of the four corners has the larger |x| and the larger |y|. `x + y` is null as soon as one of them is,
-- which `greatest` alone would pass over. A corner so far out that its square overflows has no distance either.
distances as (
    select
        *,
        {{ finite('sqrt(greatest(x1 * x1, x2 * x2) + greatest(y1 * y1, y2 * y2) + 0 * (x1 + y1 + x2 + y2))') }}
            as box_reach_arcsec,
        frame_count > 0 as has_frames,
        coalesce(gos_opening_count, 0) + coalesce(gos_closed_count, 0)
        + coalesce(gos_closing_count, 0) + coalesce(gos_undefined_count, 0) as gos_not_open_count
    from boxes
),

on_disk as (
    select
        op_id,
        instrument,
        dataset_id,
        'on_disk' as criterion,
        nullif(trim(bounding_box), '') is not null and start_time is not null as is_recorded,
        coalesce(box_reach_arcsec < solar_radius_arcsec, false) as passed,
        box_reach_arcsec as measured_value,
        bounding_box as measured_text,
        solar_radius_arcsec as threshold,
        solar_radius_arcsec - box_reach_arcsec as reserve
    from distances
),

stokes as (
    select
        distances.op_id,
        distances.instrument,
        distances.dataset_id,
        'stokes' as criterion,
        nullif(trim(distances.stokes), '') is not null as is_recorded,
        coalesce(distances.stokes = rules.required_stokes, false) as passed,
        null::double as measured_value,
        distances.stokes as measured_text,
        null::double as threshold,
        0::double as reserve
    from distances
    cross join rules
),

health as (
    select
        distances.op_id,
        distances.instrument,
        distances.dataset_id,
        'health' as criterion,
        distances.has_health and distances.frame_count is not null as is_recorded,
        case when distances.has_frames then coalesce(distances.health_good_count, 0) / distances.frame_count end
            as measured_value,
        coalesce(distances.health_good_count, 0) || ' of ' || distances.frame_count || ' frames good' as measured_text,
        rules.min_health_fraction as threshold
    from distances
    cross join rules
),

gos as (
    select
        distances.op_id,
        distances.instrument,
        distances.dataset_id,
        'gos' as criterion,
        distances.has_gos and distances.frame_count is not null as is_recorded,
        case when distances.has_frames then coalesce(distances.gos_open_count, 0) / distances.frame_count end
            as measured_value,
        coalesce(distances.gos_open_count, 0) || ' of ' || distances.frame_count || ' frames open, '
        || distances.gos_not_open_count || ' not open' as measured_text,
        rules.min_open_fraction as threshold,
        distances.gos_not_open_count
    from distances
    cross join rules
),

adaptive_optics as (
    select
        distances.op_id,
        distances.instrument,
        distances.dataset_id,
        'adaptive_optics' as criterion,
        distances.ao_locked_count is not null and distances.frame_count is not null as is_recorded,
        case when distances.has_frames then distances.ao_locked_count / distances.frame_count end as measured_value,
        distances.ao_locked_count || ' of ' || distances.frame_count || ' frames locked' as measured_text,
        rules.min_ao_locked_fraction as threshold
    from distances
    cross join rules
),

-- Every frame open: since the frame count can drop below the open count, a frame in another GOS state shows only in
-- its own count, which must be zero.
fractions as (
    select
        *,
        coalesce(measured_value >= threshold, false) as passed,
        measured_value as reserve
    from health
    union all by name
    select
        *,
        coalesce(measured_value >= threshold, false) as passed,
        measured_value as reserve
    from adaptive_optics
    union all by name
    select
        * exclude (gos_not_open_count),
        coalesce(measured_value >= threshold, false) and gos_not_open_count = 0 as passed,
        measured_value - gos_not_open_count as reserve
    from gos
),

judged as (
    select * from on_disk
    union all by name
    select * from stokes
    union all by name
    select * from fractions
),

final as (
    select
        op_id,
        instrument,
        dataset_id,
        criterion,
        is_recorded and passed as passed,
        case
            when not is_recorded then 'not_recorded'
            when passed then 'pass'
            else 'fail'
        end as outcome,
        case when is_recorded then measured_value end as measured_value,
        measured_text,
        threshold,
        case when is_recorded then reserve end as reserve
    from judged
)

select * from final
