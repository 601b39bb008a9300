"""Networks of the zoo and training steps in other libraries, written as an experienced user would write them."""
