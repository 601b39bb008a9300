"""What torchvision calls GoogLeNet's tensors: its modules have the paper's letters."""

RULES = (
    (r"^head\.", "fc."),
    (r"\.norm\.", ".bn."),
    (r"^(inception\d)\.(\d)\.", lambda match: f"{match[1]}{'abcde'[int(match[2])]}."),
)

#: The auxiliary classifiers, which serve in training only.
LEFT_OUT = (r"^aux[12]\.",)
