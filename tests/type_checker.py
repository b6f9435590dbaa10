"""How annotations are checked at run time: a whole number serves where a number is expected."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
