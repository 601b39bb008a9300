"""Networks of the zoo, and training steps, as an experienced user of another library writes them."""
