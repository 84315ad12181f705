"""Files and folders that appear whole or not at all."""

from training_recipe.files.writing import all_or_nothing, remove, written_aside

__all__ = ["all_or_nothing", "remove", "written_aside"]
