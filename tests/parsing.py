"""A parser with an option of every kind, for tests of any arguments."""

from tal1_hvd.cli.arguments import Parser, add_setting

# What `parse` returns for no arguments at all.
DEFAULTS = {"config": None, "name": "none", "quick": False, "input": None}


def parse(*argv):
    """Parse with a new parser that has an option of every kind."""
    parser = Parser(prog="tal1-hvd test")
    add_setting(parser, "--seed", 0, "seed")
    add_setting(parser, "--rate", 0.5, "rate")
    add_setting(parser, "--motif", ("a", "b"), "motifs", nargs="+")
    add_setting(parser, "--mode", "slow", "mode", choices=("slow", "fast"))
    add_setting(parser, "--max-sites", None, "sites", type=int)
    parser.add_argument("--name", default="none")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("input", nargs="?")
    return vars(parser.parse([str(word) for word in argv]))
