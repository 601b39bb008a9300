"""`python -m eqxcnn.serve`: a trained classifier as an HTTP service, with a page to try it."""
