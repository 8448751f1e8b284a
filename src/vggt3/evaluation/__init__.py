"""Exams and their scores: rows out, nothing printed."""
