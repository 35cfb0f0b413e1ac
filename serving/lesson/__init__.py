"""A recording of a lesson, minutes to hours with many faces, to a timeline a person and one of the class."""
