"""Developer commands: figures of the documents, and the renderer's mesh."""
