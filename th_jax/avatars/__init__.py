"""Avatar creation and storage: fine-tuning many people, file formats, compact storage, reports and previews."""
