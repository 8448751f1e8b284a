"""The field's protocols as frozen data: which views of which scenes, and how they are scored."""
