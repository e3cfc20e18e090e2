"""The tested implementations behind the course: every notebook imports them from here."""

__version__ = "0.1.0"
