"""The pages of the zoo: `docs/zoo.md`, the table `docs/assets/zoo.html` and the plot of accuracy."""
