with datasets as (
    select * from {{ ref('int_op_datasets') }}
),

wanted_lines as (
    select * from {{ ref('wanted_lines') }}
),

supported as (
    select
        op_id,
        instrument,
        dataset_id,
        spectral_lines,
        are_lines_known,
        {{ finite('wavelength_min_nm') }} as wavelength_min_nm,
        {{ finite('wavelength_max_nm') }} as wavelength_max_nm
    from datasets
    where is_supported
),

instruments as (
    select
        op_id,
        instrument,
        bool_and(are_lines_known) as are_lines_known
    from supported
    group by op_id, instrument
),

observed_lines as (
    select distinct
        op_id,
        instrument,
        unnest(spectral_lines) as line_name
    from supported
),

line_lists as (
    select
        op_id,
        instrument,
        list_sort(list(line_name)) as all_line_names
    from observed_lines
    group by op_id, instrument
),

-- Each name is looked at once, however many OPs have it.
line_names as (
    select distinct line_name from observed_lines
),

wanted_names as (
    select
        line_names.line_name,
        wanted_lines.line
    from line_names
    inner join wanted_lines on regexp_matches(line_names.line_name, wanted_lines.name_pattern)
),

matches as (
    select
        observed_lines.op_id,
        observed_lines.instrument,
        wanted_names.line,
        list_sort(list(observed_lines.line_name)) as line_names
    from observed_lines
    inner join wanted_names on observed_lines.line_name = wanted_names.line_name
    group by observed_lines.op_id, observed_lines.instrument, wanted_names.line
),

narrow_windows as (
    select distinct
        supported.op_id,
        supported.instrument,
        wanted_lines.line
    from supported
    inner join wanted_lines
        on
            abs(supported.wavelength_min_nm - wanted_lines.window_centre_nm) < wanted_lines.window_margin_nm
            or abs(supported.wavelength_max_nm - wanted_lines.window_centre_nm) < wanted_lines.window_margin_nm
),

final as (
    select
        instruments.op_id,
        instruments.instrument,
        wanted_lines.line,
        wanted_lines.priority,
        wanted_lines.is_required,
        coalesce(matches.line_names, []) as line_names,
        matches.line is not null as is_observed,
        narrow_windows.line is not null as is_window_narrow,
        coalesce(line_lists.all_line_names, []) as all_line_names,
        instruments.are_lines_known
    from instruments
    cross join wanted_lines
    left join line_lists
        on
            instruments.op_id = line_lists.op_id
            and instruments.instrument = line_lists.instrument
    left join matches
        on
            instruments.op_id = matches.op_id
            and instruments.instrument = matches.instrument
            and wanted_lines.line = matches.line
    left join narrow_windows
        on
            instruments.op_id = narrow_windows.op_id
            and instruments.instrument = narrow_windows.instrument
            and wanted_lines.line = narrow_windows.line
)

select * from final
