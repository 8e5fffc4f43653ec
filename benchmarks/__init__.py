"""How fast the project is, beside real peers, on the machine at hand: ``make bench``."""
