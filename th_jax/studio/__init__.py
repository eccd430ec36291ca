"""The studio: a local page from photos to a talking avatar. All modules except `page` work without Gradio."""
