"""The dbt project, alone: importing it without a manifest raises, so nothing else lives here.

``make setup`` and the tests prepare the manifest; the code server of ``dagster dev`` makes it anew.
"""

from multiprocessing import parent_process

from dagster_dbt import DbtProject

from dagster_l2.settings import REPOSITORY

_FOLDER = REPOSITORY / "dbt_project"

warehouse_project = DbtProject(project_dir=_FOLDER, profiles_dir=_FOLDER)
# Not for each run, whose process the code server has spawned: dbt takes seconds to parse the project, and a
# manifest other than the one that the run was planned with would be no help.
if parent_process() is None:
    warehouse_project.prepare_if_dev()
