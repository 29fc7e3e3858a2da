"""Entry points for tools and notebooks; import the module you need."""
