"""Print `docs/recipes.md`."""

from discreet.recipes.document import as_markdown

if __name__ == "__main__":
    print(as_markdown(), end="")
