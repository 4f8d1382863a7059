"""How routers get to know the plugin: the files they read, made from the manifest, and what people fill in by hand."""
