"""All entrances of the library by name."""

from . import arrays, bodies, commands, folders, images, recipes, runs, weights

ENTRANCES = {
    **weights.ENTRANCES,
    **recipes.ENTRANCES,
    **images.ENTRANCES,
    **bodies.ENTRANCES,
    **arrays.ENTRANCES,
    **folders.ENTRANCES,
    **runs.ENTRANCES,
    **commands.ENTRANCES,
}
