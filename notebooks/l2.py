"""A marimo notebook on the analysts' DuckDB file: seeing, OPs over time, the disk, how far the OPs are.

`l2 notebook` opens it. It only reads, and shows what gold held when it was opened.
"""

import marimo

app = marimo.App(width="medium", app_title="Level-2 inversions")


@app.cell
def _():
    import marimo as mo
    import matplotlib.pyplot as plt
    from matplotlib.patches import Circle, Patch, Rectangle

    from dagster_l2.pipeline.gold import read_gold
    from dagster_l2.settings import load_settings

    plt.rcParams.update(
        {
            "figure.figsize": (8, 4.2),
            "figure.dpi": 120,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlelocation": "left",
            "legend.frameon": False,
        }
    )
    # The palette of Okabe and Ito, which the colour-blind can tell apart.
    YES, NO, MIDDLE, QUIET = "#0072B2", "#D55E00", "#56B4E9", "#BBBBBB"
    return Circle, MIDDLE, NO, Patch, QUIET, Rectangle, YES, load_settings, mo, plt, read_gold


@app.cell
def _(load_settings, mo, read_gold):
    gold = load_settings().gold

    def ask(query):
        return read_gold(gold, query)

    info = ask("select * from warehouse_info")[0]
    totals = ask(
        "select (select count(*) from observing_programs) as ops, (select count(*) from datasets) as datasets"
    )[0]
    mo.md(
        f"""
        # Level-2 inversions

        {totals["ops"]} observing programs (OPs) with {totals["datasets"]} current datasets,
        from {info["store"]}. Built {info["built_at"]:%Y-%m-%d %H:%M} UTC,
        by the rules `{info["rule_version"]}`.
        """
    )
    return (ask,)


@app.cell
def _(MIDDLE, NO, YES, ask, mo, plt):
    _rows = ask(
        "select fried_parameter_median_m * 100 as r0_cm, seeing from observing_programs"
        " where fried_parameter_median_m is not null"
    )
    (_unknown,) = ask("select count(*) - count(fried_parameter_median_m) as n from observing_programs")
    _classes = {"poor": NO, "fair": MIDDLE, "good": YES}
    seeing_picture, _axes = plt.subplots()
    _top = max([row["r0_cm"] for row in _rows], default=1)
    _axes.hist(
        [[row["r0_cm"] for row in _rows if row["seeing"] == name] for name in _classes],
        bins=[step / 2 for step in range(int(_top * 2) + 2)],
        stacked=True,
        color=list(_classes.values()),
        label=list(_classes),
    )
    _axes.set(
        title="Seeing", xlabel="Fried parameter R0, median of the OP (cm)", ylabel="OPs", xlim=(0, None)
    )
    _axes.yaxis.get_major_locator().set_params(integer=True)
    _axes.legend(title="seeing")
    mo.vstack(
        [seeing_picture, mo.md(f"{len(_rows)} OPs; {_unknown['n']} more without a recorded Fried parameter.")]
    )
    return (seeing_picture,)


@app.cell
def _(NO, YES, ask, plt):
    _rows = ask(
        """
        with counted as (
            select
                date_trunc('month', start_time) as month,
                count(*) filter (where is_invertible) as invertible,
                count(*) filter (where not is_invertible) as others
            from observing_programs
            where start_time is not null
            group by all
        ),

        months as (
            select unnest(generate_series(min(month), max(month), interval 1 month)) as month
            from counted
        )

        select months.month, coalesce(invertible, 0) as invertible, coalesce(others, 0) as others
        from months
        left join counted using (month)
        order by month
        """
    )
    months_picture, _axes = plt.subplots()
    _months = [row["month"] for row in _rows]
    _invertible = [row["invertible"] for row in _rows]
    _axes.bar(_months, _invertible, width=27, align="edge", color=YES, label="invertible")
    _others = [row["others"] for row in _rows]
    _axes.bar(_months, _others, 27, _invertible, align="edge", color=NO, label="not invertible")
    _axes.set(title="Observed OPs by month of their first dataset", ylabel="OPs", xlabel="month (UTC)")
    _axes.yaxis.get_major_locator().set_params(integer=True)
    _axes.legend()
    months_picture
    return (months_picture,)


@app.cell
def _(Circle, NO, Patch, QUIET, Rectangle, YES, ask, mo, plt):
    # Far out of the picture lies what cannot be a place on the Sun; it is counted below.
    _rows = ask(
        """
        select
            box_x1_arcsec / solar_radius_arcsec as x1,
            box_y1_arcsec / solar_radius_arcsec as y1,
            box_x2_arcsec / solar_radius_arcsec as x2,
            box_y2_arcsec / solar_radius_arcsec as y2,
            coalesce(op_qualification.is_supported, false) as is_supported,
            coalesce(op_qualification.is_invertible, false) as is_invertible
        from datasets
        left join op_qualification using (op_id, instrument)
        where x1 + y1 + x2 + y2 is not null
        order by is_supported, dataset_id
        """
    )
    _shown = [row for row in _rows if max(abs(row[name]) for name in ("x1", "y1", "x2", "y2")) < 1.3]
    disk_picture, _axes = plt.subplots(figsize=(6.4, 6.4))
    _axes.add_patch(Circle((0, 0), 1, facecolor="#FFF4D6", edgecolor="#C9A227", linewidth=1.2, zorder=0))
    for _row in _shown:
        _colour = QUIET if not _row["is_supported"] else YES if _row["is_invertible"] else NO
        _axes.add_patch(
            Rectangle(
                (min(_row["x1"], _row["x2"]), min(_row["y1"], _row["y2"])),
                abs(_row["x1"] - _row["x2"]),
                abs(_row["y1"] - _row["y2"]),
                facecolor="none",
                edgecolor=_colour,
                linewidth=1,
                zorder=2 if _row["is_supported"] else 1,
            )
        )
    _axes.set(
        title="Where on the Sun: the boxes of the datasets",
        xlim=(-1.15, 1.15),
        ylim=(-1.15, 1.15),
        aspect="equal",
        xlabel="helioprojective x, to solar west (solar radii)",
        ylabel="helioprojective y, to solar north (solar radii)",
    )
    _axes.legend(
        handles=[
            Patch(facecolor="none", edgecolor=YES, label="ViSP, OP invertible"),
            Patch(facecolor="none", edgecolor=NO, label="ViSP, OP not invertible"),
            Patch(facecolor="none", edgecolor=QUIET, label="other instruments"),
        ],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.12),
        ncols=3,
    )
    _away = len(_rows) - len(_shown)
    mo.vstack(
        [
            disk_picture,
            mo.md(f"{len(_shown)} boxes; {_away} more lie far off the Sun, as the store has them."),
        ]
    )
    return (disk_picture,)


@app.cell
def _(MIDDLE, YES, ask, plt):
    _rows = ask(
        """
        select
            state_rules.state,
            count(distinct op_history.op_id) as reached,
            count(distinct op_latest_state.op_id) as now
        from state_rules
        left join op_history on op_history.to_state = state_rules.state
        left join op_latest_state on op_latest_state.state = state_rules.state
        group by state_rules.state, state_rules.position
        order by state_rules.position
        """
    )
    _ways = [row for row in _rows if row["state"] not in ("NotInvertible", "Error")]
    _aside = [row for row in _rows if row["state"] in ("NotInvertible", "Error")]
    _names = [row["state"] for row in [*_ways, *_aside]]
    _places = [*range(len(_ways)), *(len(_ways) + 0.5 + number for number in range(len(_aside)))]
    states_picture, _axes = plt.subplots()
    _reached = [row["reached"] for row in [*_ways, *_aside]]
    _now = [row["now"] for row in [*_ways, *_aside]]
    _axes.barh(_places, _reached, color=MIDDLE, label="have been there")
    _axes.barh(_places, _now, height=0.4, color=YES, label="are there now")
    for _place, _many, _here in zip(_places, _reached, _now, strict=True):
        _axes.text(_many, _place, f"  {_many}, now {_here}", va="center")
    _axes.set_yticks(_places, _names)
    _axes.invert_yaxis()
    _axes.set(title="How far the OPs have come", xlabel="OPs", xlim=(0, max(_reached, default=0) * 1.2 + 1))
    _axes.xaxis.get_major_locator().set_params(integer=True)
    _axes.legend(loc="lower right")
    states_picture
    return (states_picture,)


@app.cell
def _(mo):
    mo.md(
        """
        Every other question: `ask("…")` in a new cell; `docs/analysts.md` has ten with their queries.
        """
    )
    return


if __name__ == "__main__":
    app.run()
