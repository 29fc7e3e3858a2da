"""Build of nepa_mm: metadata, optional dependencies, and the ``.mim`` folder for mim users."""

import shutil
import sys
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
# mim looks for an installed package's configs, tools and model index in this folder of it.
MIM = Path('nepa_mm', '.mim')
MIM_CONTENT = ('configs', 'tools', 'model-index.yml')


def read_version() -> str:
    """Version as nepa_mm/version.py states it, without importing the package and its hosts."""
    scope: dict[str, str] = {}
    exec((ROOT / 'nepa_mm' / 'version.py').read_text(encoding='utf-8'), scope)
    return scope['__version__']


def read_readme() -> str:
    """Long description; empty in a tree that has no README yet."""
    readme = ROOT / 'README.md'
    return readme.read_text(encoding='utf-8') if readme.is_file() else ''


class BuildWithMim(build_py):
    """Build the modules, then give the package its ``.mim`` folder.

    A wheel gets copies, written straight into the build folder: the source tree stays as it is. An
    editable installation gets links in the source tree, so that mim sees every later edit.
    """

    def run(self) -> None:
        """Build the modules and ``.mim``."""
        super().run()
        if self.editable_mode:
            self._link(ROOT / MIM)
        else:
            self._copy(Path(self.build_lib) / MIM)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Files of the build; ``.mim`` included where it holds copies."""
        outputs = super().get_outputs(include_bytecode)
        if not self.editable_mode:
            copies = sorted((Path(self.build_lib) / MIM).rglob('*'))
            outputs += [str(path) for path in copies if path.is_file()]
        return outputs

    @staticmethod
    def _copy(target: Path) -> None:
        # A build folder is used again: without this, files deleted since would stay in wheels.
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        ignore = shutil.ignore_patterns('__pycache__', '*.py[co]', '.*')
        for name in MIM_CONTENT:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, target / name, ignore=ignore)
            else:
                shutil.copy2(source, target / name)

    @staticmethod
    def _link(target: Path) -> None:
        shutil.rmtree(target, ignore_errors=True)  # removes links, never what they point to
        target.mkdir(parents=True)
        for name in MIM_CONTENT:
            try:
                (target / name).symlink_to(Path('..', '..', name), (ROOT / name).is_dir())
            except OSError as error:  # Windows without the right to create links
                print(f'{target / name} is not linked, mim will not find it: {error}', file=sys.stderr)


# Floors are the oldest releases that were tried (nepa_mm/stack.py checks the same ones); there are
# no upper bounds. torch's floor is the one that onedl-mmcv states.
BASICS = ['torch>=2.6', 'torchvision', 'timm>=1.0.26', 'simplejpeg>=1.9']
ONEDL = [
    'onedl-mmengine>=0.10.12',
    'onedl-mmcv>=2.3.6',
    'onedl-mmpretrain>=1.3.6',
    'onedl-mmsegmentation>=1.4.2',
]

setup(
    name='nepa_mm',
    version=read_version(),
    description='NEPA (next-embedding predictive autoregression) for OpenMMLab: pretrain a causal '
    'ViT, then segment and classify with it',
    long_description=read_readme(),
    long_description_content_type='text/markdown',
    author='The nepa_mm authors',
    license='Apache-2.0',
    license_files=['LICENSE'],
    keywords='computer vision, self-supervised learning, semantic segmentation, OpenMMLab',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Operating System :: OS Independent',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    packages=find_packages(include=['nepa_mm', 'nepa_mm.*']),
    python_requires='>=3.10',
    # Neither family of OpenMMLab is required here: the wrong one would be installed over the other.
    # Nor is timm: it requires torch and torchvision, and pip would replace a user's own build of
    # torch to suit the newest torchvision. `import nepa_mm` names what is missing instead.
    install_requires=['filelock', 'huggingface_hub>=0.25', 'numpy', 'pillow', 'safetensors'],
    extras_require={
        'openmm': BASICS + ONEDL,
        'hf': ['datasets'],
        'demo': ['scikit-image', 'scikit-learn', 'matplotlib'],
        'dev': ['pytest', 'pytest-timeout', 'pytest-xdist', 'ruff', 'mypy', 'pre-commit', 'setuptools>=77'],
    },
    cmdclass={'build_py': BuildWithMim},
    zip_safe=False,
)
