"""Files and what lies behind URLs: written whole or not at all, read within bounds."""
