"""The samplers of embedding diffusion under the names by which a user finds them (Buzzard 2025, §1.7 of its code's
facts). The loop and the orders of clamping and guidance are in `embedding.py`.

`ddim` and `dpmpp` are the solvers alone; every other one has the solver as a dial. Two names for one algorithm share
their stored points: `cfg solver=ddim` is `ddim`, and with guidance off every order of clamping is `clamp`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from torch import Tensor

from diffq.diffusion.solvers import FinalSigma, SecondOrder, SolverStep, Spacing, ddim_steps, dpmpp_steps
from diffq.errors import UserError
from diffq.registry import SAMPLERS
from diffq.samplers.base import Sampler
from diffq.samplers.embedding import EmbeddingSampler, Order
from diffq.settings import setting

Solver = Literal["dpmpp", "ddim"]


@SAMPLERS.register("ddim")
@dataclass(frozen=True, kw_only=True)
class DDIM(EmbeddingSampler):
    """DDIM, the deterministic solver of Song et al. (2021), with guidance by scale."""

    spacing: Spacing = setting("leading", "timesteps visited (published: leading, which begins below T−1)")
    clip_x0: bool = setting(False, "clamp the prediction to [−1, 1] (published: true; harms N(0,1) embeddings)")
    set_alpha_to_one: bool = setting(True, "the last step ends without noise (published: true)")

    def trajectory(self, alpha_bar_T: Tensor) -> list[SolverStep]:
        return ddim_steps(
            alpha_bar_T,
            self.steps,
            spacing=self.spacing,
            clip_x0=self.clip_x0,
            set_alpha_to_one=self.set_alpha_to_one,
        )


@SAMPLERS.register("dpmpp")
@dataclass(frozen=True, kw_only=True)
class DPMSolverPP(EmbeddingSampler):
    """DPM-Solver++(2M), the multistep solver of Lu et al. (2022), with guidance by scale."""

    spacing: Spacing = setting("linspace", "timesteps visited (published: linspace)")
    solver_order: Literal[1, 2] = setting(2, "order of the multistep formula (published: 2)")
    second_order: SecondOrder = setting("midpoint", "form of the second-order term (published: midpoint)")
    lower_order_final: bool = setting(True, "first order at the end of runs under 15 steps (published: true)")
    final_sigma: FinalSigma = setting("zero", "noise left at the end: none, or that of timestep 0 (published: zero)")

    def trajectory(self, alpha_bar_T: Tensor) -> list[SolverStep]:
        return dpmpp_steps(
            alpha_bar_T,
            self.steps,
            spacing=self.spacing,
            order=self.solver_order,
            second_order=self.second_order,
            lower_order_final=self.lower_order_final,
            final_sigma=self.final_sigma,
        )


_SOLVERS: dict[str, type[EmbeddingSampler]] = {"ddim": DDIM, "dpmpp": DPMSolverPP}


def _names(cls: type) -> set[str]:
    return {f.name for f in fields(cls)}


@dataclass(frozen=True, kw_only=True)
class _AnySolver(EmbeddingSampler):
    """The dials of both solvers, for samplers that let one choose."""

    solver: Solver = setting("dpmpp", "which solver takes the steps")
    spacing: Literal["default", "linspace", "leading", "trailing"] = setting(
        "default", "timesteps visited; default is the solver's own: linspace for dpmpp, leading for ddim"
    )
    solver_order: Literal[1, 2] = setting(2, "dpmpp: order of the multistep formula")
    second_order: SecondOrder = setting("midpoint", "dpmpp: form of the second-order term")
    lower_order_final: bool = setting(True, "dpmpp: first order at the end of runs under 15 steps")
    final_sigma: FinalSigma = setting("zero", "dpmpp: noise left at the end")
    clip_x0: bool = setting(False, "ddim: clamp the prediction to [−1, 1]")
    set_alpha_to_one: bool = setting(True, "ddim: the last step ends without noise")

    def check(self) -> None:
        other = _SOLVERS["ddim" if self.solver == "dpmpp" else "dpmpp"]
        for field in fields(self):
            foreign = field.name in _names(other) - _names(_SOLVERS[self.solver])
            if foreign and getattr(self, field.name) != field.default:
                raise UserError(f"{self.kind}: {field.name} is a dial of solver={other.kind}, not of {self.solver}")

    def plain(self) -> EmbeddingSampler:
        """The solver alone with this sampler's dials."""
        cls = _SOLVERS[self.solver]
        held: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self) if f.name in _names(cls)}
        if self.spacing == "default":
            del held["spacing"]
        return cls(**held)

    def trajectory(self, alpha_bar_T: Tensor) -> list[SolverStep]:
        return self.plain().trajectory(alpha_bar_T)


@SAMPLERS.register("cfg")
@dataclass(frozen=True, kw_only=True)
class CFG(_AnySolver):
    """Classifier-free guidance without clamping: the solver with its scale."""

    def canonical(self) -> Sampler:
        return self.plain()


@dataclass(frozen=True, kw_only=True)
class _Clamping(_AnySolver):
    """The dials that clamping adds."""

    clamp_lerp: bool = setting(False, "clamp by 1 − t/T of the way only (published option)")

    def canonical(self) -> Sampler:
        """With guidance off every order is `clamp`; `clamp` with guidance on is `clamp_before_cfg`."""
        cls = ClampBeforeCFG if self.needs_guidance() else Clamp
        if type(self) is cls or (self.needs_guidance() and not isinstance(self, Clamp)):
            return self
        return cls(**{f.name: getattr(self, f.name) for f in fields(self)})


@SAMPLERS.register("clamp")
@dataclass(frozen=True, kw_only=True)
class Clamp(_Clamping):
    """Clamping: every step's prediction is replaced by token embeddings, the nearest or drawn by temperature."""

    order: ClassVar[Order] = "before"


@SAMPLERS.register("clamp_before_cfg")
@dataclass(frozen=True, kw_only=True)
class ClampBeforeCFG(_Clamping):
    """Both predictions clamped, then guided: guide(clamp(c), clamp(u)); the paper's best order (its mode 2)."""

    order: ClassVar[Order] = "before"


@SAMPLERS.register("clamp_after_cfg")
@dataclass(frozen=True, kw_only=True)
class ClampAfterCFG(_Clamping):
    """Guided, then clamped: clamp(guide(c, u)); the paper's bad order (its mode 1)."""

    order: ClassVar[Order] = "after"


@SAMPLERS.register("clamp_around_cfg")
@dataclass(frozen=True, kw_only=True)
class ClampAroundCFG(_Clamping):
    """Clamped, guided, clamped again: clamp(guide(clamp(c), clamp(u))) (mode 3)."""

    order: ClassVar[Order] = "around"


@SAMPLERS.register("clamp_residual_cfg")
@dataclass(frozen=True, kw_only=True)
class ClampResidualCFG(_Clamping):
    """Clamped, with the unclamped guidance added: clamp(c) + (k·s − 1)·(c − u) (mode 4, experimental)."""

    order: ClassVar[Order] = "residual"
