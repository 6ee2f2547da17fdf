"""The dbt project, alone: importing it without a manifest raises, so nothing else lives here.

``make setup`` and the tests prepare the manifest; ``dagster dev`` makes it anew.
"""

from dagster_dbt import DbtProject

from dagster_l2.settings import REPOSITORY

_FOLDER = REPOSITORY / "dbt_project"

warehouse_project = DbtProject(project_dir=_FOLDER, profiles_dir=_FOLDER)
warehouse_project.prepare_if_dev()
