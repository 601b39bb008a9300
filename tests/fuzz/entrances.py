"""All entrances of the library by name."""

from . import commands, folders, images, recipes, runs, weights

ENTRANCES = {
    **weights.ENTRANCES,
    **recipes.ENTRANCES,
    **images.ENTRANCES,
    **folders.ENTRANCES,
    **runs.ENTRANCES,
    **commands.ENTRANCES,
}
