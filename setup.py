"""What pyproject.toml cannot say: the recipes in configs/ travel in the wheel, as rlkit/configs."""

from __future__ import annotations

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithRecipes(build_py):
    """Copies configs/ into the built package; an editable install finds the folder where it is."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for source, target in self.recipes().items():
                self.mkpath(str(Path(target).parent))
                self.copy_file(source, target)

    def recipes(self) -> dict[str, str]:
        """Return source file -> file in the build folder, for recipes and the data they name."""
        sources = [f for suffix in ("yaml", "npz") for f in Path("configs").rglob(f"*.{suffix}")]
        return {str(f): str(Path(self.build_lib, "rlkit", f)) for f in sources}

    def get_source_files(self) -> list[str]:
        return [*super().get_source_files(), *self.recipes()]

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), *self.recipes().values()]


setup(cmdclass={"build_py": BuildWithRecipes})
