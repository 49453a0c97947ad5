"""What users of this family of projects reported: one small case for each kind of fault, with the right answer.

Each docstring says in general words what was reported, and of which project.
"""
