"""CMOSE's model (Wu et al. 2023, section IV): OpenFace's statistics over time, I3D, and speech, fused into one score.

It is trained by the loss of the same name; any other loss fits too.
Letters: B clips, R rows (frames), D features a row, T chunks, F statistics a chunk, I width of I3D, C hidden units,
E embedding width, K levels.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from data_shards.errors import ConfigError
from data_shards.reading.loader import ClipInputs
from training.models.chunk_statistics import chunk_statistics, real_steps
from training.models.contract import EngagementModel, ModelOutput
from training.models.dropout import KeyedDropout
from training.models.row_norm import RowNorm
from training.models.score_head import SCORE_HEADS, ScoreHead
from training.models.temporal import BiLstm, DilatedTcn, Transformer
from training.settings import Settings

__all__ = ["MocoRank", "MocoRankSettings"]

SPEECH, ACOUSTICS = "speech", "acoustics"
_BERT_WIDTH, _NUM_ACOUSTICS = 768, 7
_NONE = "none"
_PREPARED = ("chunk statistics", "seen chunks", "real steps")  # no names of features: these are extracted to files
_OVER_TIME = ("chunks", "min_rows", "compress", "temporal", "levels", "kernel", "heads", "dropout")  # settings of OpenFace's path
_SMALL = 0.01  # and not 0: then neither these weights nor what they weigh would have a gradient
_MLP1_SALT = 1001  # of its dropout; the temporal part's layers have small numbers


class MocoRankSettings(Settings):
    """openface, i3d: the features' names in the shards, or "none"; widths: their columns, 0 for as many as the data have.
    chunks 0: the feature is a sequence of statistics already. min_rows: shorter clips are repeated, 0 for never. compress:
    values become sign(x) log(1 + |x|) before they are normalised.

    fusion, the rows of Table 3: "both" as published; "attention" uses I3D for the attention of eq. 1 alone, "concat" for
    eq. 3 alone, with the mean over time in place of attention; "openface" is without I3D, and "i3d" (Table 4) without
    OpenFace. speech: whether eqs. 5 to 8 are there. hidden, levels, kernel, heads, dropout: of the temporal part.

    [choice] The paper names no number of chunks and no size of the TCN. 16 chunks are about 0.6 s each of the 251 rows at
    25 frames a second; 3 levels of kernel 3 see 29 steps back, which is all of them.
    """

    name: Literal["mocorank"] = "mocorank"
    openface: str = "openface"
    openface_width: int = Field(default=49, ge=0, le=65536)
    chunks: int = Field(default=16, ge=0, le=4096)
    min_rows: int = Field(default=251, ge=0, le=100_000)
    compress: bool = True
    i3d: str = "i3d"
    i3d_width: int = Field(default=1024, ge=0, le=65536)
    fusion: Literal["both", "attention", "concat", "openface", "i3d"] = "both"
    speech: bool = False
    temporal: Literal["tcn", "bilstm", "transformer"] = "tcn"
    hidden: int = Field(default=128, ge=1, le=8192)
    levels: int = Field(default=3, ge=1, le=12)
    kernel: int = Field(default=3, ge=1, le=255)
    heads: int = Field(default=4, ge=1, le=64)
    dropout: float = Field(default=0.25, ge=0, lt=1)
    head: Literal["cosine", "linear", "ordinal"] = "cosine"

    @model_validator(mode="after")
    def _fits_together(self) -> "MocoRankSettings":
        if (self.openface == _NONE) != (self.fusion == "i3d"):
            raise ValueError("fusion 'i3d' is for openface 'none', and the other way round; set both, or neither")
        if (self.i3d == _NONE) != (self.fusion == "openface"):
            raise ValueError("fusion 'openface' is for i3d 'none', and the other way round; set both, or neither")
        if self.temporal == "bilstm" and self.hidden % 2:
            raise ValueError(f"hidden is {self.hidden}, which two directions cannot share; set an even number")
        if self.temporal == "transformer" and self.hidden % self.heads:
            raise ValueError(f"hidden is {self.hidden}, which {self.heads} heads cannot share; set a multiple of heads")
        return self

    @model_validator(mode="after")
    def _applies(self) -> "MocoRankSettings":
        if self.fusion == "i3d":
            self._refuse("the fusion is i3d, without OpenFace", *_OVER_TIME)
        if self.temporal != "tcn":
            self._refuse(f"the temporal part is a {self.temporal}", "kernel")
        if self.temporal != "transformer":
            self._refuse(f"the temporal part is a {self.temporal}", "heads")
        if self.chunks == 0 and self.min_rows != 0:
            self._refuse("chunks is 0, and only clips that are cut into chunks are repeated", "min_rows")
        return self

    def _refuse(self, why: str, *names: str) -> None:
        """ValueError where one of these settings, which nothing reads, is not at its default."""
        for name in names:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} has no effect here: {why}; leave it out")


class MocoRank(EngagementModel):
    """The visual part's score, or that of both parts where a clip has speech (Wu et al. 2023, eqs. 1 to 8).

    embedding_BE is X, or X' (eq. 7) with zeros for the speech of clips that have none. Every clip goes through both parts
    and takes one's answer, so that all parameters have a gradient whichever clips a worker's batch holds.
    """

    settings_type: ClassVar[type[Settings]] = MocoRankSettings

    @staticmethod
    def inputs_of(settings: MocoRankSettings) -> tuple[str, ...]:
        return tuple(name for name in (settings.openface, settings.i3d) if name != _NONE)

    @staticmethod
    def optional_of(settings: MocoRankSettings) -> tuple[str, ...]:
        return (SPEECH, ACOUSTICS) if settings.speech else ()

    @staticmethod
    def fitted(settings: MocoRankSettings, shapes: Mapping[str, tuple[int, ...]]) -> MocoRankSettings:
        open_widths = {"openface_width": settings.openface, "i3d_width": settings.i3d}
        found = {
            width: shapes[feature][-1]
            for width, feature in open_widths.items()
            if getattr(settings, width) == 0 and shapes.get(feature)
        }
        return settings.model_copy(update=found)

    def __init__(self, settings: MocoRankSettings, num_levels: int) -> None:
        super().__init__(settings, num_levels)
        for name, width in ((settings.openface, settings.openface_width), (settings.i3d, settings.i3d_width)):
            if name != _NONE and width == 0:
                raise ConfigError(f"the data have no '{name}' from which its width could be taken; set it, e.g. model.i3d_width")
        self.visual = VisualPart(settings, num_levels)
        self.audio = AudioPart(self.visual.width, settings, num_levels) if settings.speech else None
        self.reads_directions, self.level_centres = self.visual.head.reads_directions, self.visual.head.level_centres

    def begin_parts(self, fresh: Sequence[str]) -> None:
        """An audio part that is added to a trained visual one starts as its score, see `AudioPart.begin_as`."""
        if self.audio is not None and all(f"audio.{name}" in fresh for name, _ in self.audio.named_parameters()):
            self.audio.begin_as(self.visual.head)

    def prepared(self, inputs: ClipInputs) -> ClipInputs:
        return self.visual.prepared(inputs)

    def forward(self, inputs: ClipInputs) -> ModelOutput:
        x_BE = self.visual(inputs)
        logits_BK, scores_B = self.visual.head(x_BE)
        if self.audio is None:
            return ModelOutput(logits_BK, x_BE, scores_B)
        joint_BE, speaks_B = self.audio(x_BE, inputs)
        joint_logits_BK, joint_scores_B = self.audio.head(joint_BE)
        return ModelOutput(
            torch.where(speaks_B.unsqueeze(1), joint_logits_BK.to(logits_BK.dtype), logits_BK),
            joint_BE,
            torch.where(speaks_B, joint_scores_B, scores_B),
        )


class VisualPart(nn.Module):
    """X of eq. 3 from OpenFace's rows and I3D, and the head that scores it (eq. 4). `width` is X's E."""

    def __init__(self, settings: MocoRankSettings, num_levels: int) -> None:
        super().__init__()
        self.settings = settings
        hidden, fusion = settings.hidden, settings.fusion
        if settings.openface != _NONE:
            columns = settings.openface_width * (3 if settings.chunks else 1)
            self.norm = RowNorm(columns)
            self.temporal = _temporal(settings, columns)
        self.mlp1 = Mlp1(settings.i3d_width, hidden, settings.dropout) if fusion in ("both", "attention") else None
        self.mlp2: nn.Module | None = None
        if fusion in ("both", "concat", "i3d"):  # [choice] hidden layers are C wide, as the last ones
            self.mlp2 = nn.Sequential(nn.Linear(settings.i3d_width, hidden), nn.ReLU(), nn.Linear(hidden, hidden))
        self.width = hidden * (2 if fusion in ("both", "concat") else 1)
        self.head: ScoreHead = SCORE_HEADS[settings.head](self.width, num_levels)

    def forward(self, inputs: ClipInputs) -> Tensor:
        """x_BE."""
        i3d_BI = self._i3d(inputs) if self.settings.i3d != _NONE else None
        parts = []
        if self.mlp2 is not None:
            parts.append(self.mlp2(i3d_BI))
        if self.settings.openface != _NONE:
            tcn_BCT, real_BT = self._over_time(inputs)
            attention_B1T = self._attention(i3d_BI, tcn_BCT, real_BT, inputs.draw_keys_B)
            parts.append((tcn_BCT * attention_B1T).sum(dim=2))  # (2) X_HL = X_TCN x X_attn^T
        return torch.cat(parts, dim=1)  # (3) X = concat(MLP2(X_I3D), X_HL)

    def _attention(self, i3d_BI: Tensor | None, tcn_BCT: Tensor, real_BT: Tensor, draw_keys_B: Tensor) -> Tensor:
        """(1) X_attn = softmax(MLP1(X_I3D) x X_TCN) over a clip's own steps; without it, [choice] all steps weigh the same."""
        if self.mlp1 is None:
            agreement_BT = torch.zeros_like(tcn_BCT[:, 0])
        else:
            agreement_BT = torch.einsum("bc,bct->bt", self.mlp1(i3d_BI, draw_keys_B), tcn_BCT)
        return agreement_BT.masked_fill(~real_BT, -torch.inf).softmax(dim=1).unsqueeze(1)

    def _over_time(self, inputs: ClipInputs) -> tuple[Tensor, Tensor]:
        """X_TCN in R^(C x T), and which of its steps a clip has (all, where it is cut into chunks).

        OpenFace's columns differ by six orders of magnitude, so statistics are compressed to sign(x) log(1 + |x|), unless
        the settings say no, and normalised by batch statistics over all chunks. [choice] A chunk without a face is 0 then, the
        mean, and keeps its place in time: that nobody was seen there is no reason to move what came before and after.
        """
        ps_BTF, seen_BT, real_BT = (self.prepared(inputs).features[name] for name in _PREPARED)
        normal_BTF = self.norm(ps_BTF.to(self._dtype), seen_BT)
        return self.temporal(normal_BTF.transpose(1, 2), real_BT, inputs.draw_keys_B), real_BT

    def prepared(self, inputs: ClipInputs) -> ClipInputs:
        """The inputs with ps in R^(T x 3D), compressed, and which chunks have a face and which steps a clip has."""
        if self.settings.openface == _NONE or _PREPARED[0] in inputs.features:
            return inputs
        name, width, chunks = self.settings.openface, self.settings.openface_width, self.settings.chunks
        rows_BRD = inputs.features[name].to(self._dtype)
        if rows_BRD.dim() != 3 or rows_BRD.shape[2] != width:
            raise _unfit(name, rows_BRD, "openface_width", width)
        lengths_B = inputs.lengths.get(name)
        if lengths_B is None:
            lengths_B = torch.full((len(rows_BRD),), rows_BRD.shape[1], device=rows_BRD.device)
        if chunks:
            ps_BTF, seen_BT = chunk_statistics(rows_BRD, lengths_B, chunks=chunks, min_rows=self.settings.min_rows)
            real_BT = torch.ones_like(seen_BT)
        else:
            seen_BT = real_steps(rows_BRD, lengths_B)
            ps_BTF = rows_BRD.masked_fill(~seen_BT.unsqueeze(2), 0)
            real_BT = torch.arange(rows_BRD.shape[1], device=rows_BRD.device) < lengths_B.unsqueeze(1)
        if self.settings.compress:
            ps_BTF = ps_BTF.sign() * torch.log1p(ps_BTF.abs())
        made = dict(zip(_PREPARED, (ps_BTF, seen_BT, real_BT), strict=True))
        return inputs._replace(features={**inputs.features, **made})

    def _i3d(self, inputs: ClipInputs) -> Tensor:
        i3d_BI = inputs.features[self.settings.i3d].to(self._dtype)
        if i3d_BI.dim() != 2 or i3d_BI.shape[1] != self.settings.i3d_width:
            raise _unfit(self.settings.i3d, i3d_BI, "i3d_width", self.settings.i3d_width)
        return i3d_BI

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype


class AudioPart(nn.Module):
    """X' of eq. 7 from X and a clip's speech, and the head that scores it (eq. 8).

    Speech is BERT's 768 numbers, acoustics start with the seven of eq. 6; [choice] these are normalised by batch statistics
    over the clips that have them: seconds, shares and decibels would else weigh by their units in the cosine.
    """

    def __init__(self, visual_width: int, settings: MocoRankSettings, num_levels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(_BERT_WIDTH, _BERT_WIDTH)
        self.norm = RowNorm(_NUM_ACOUSTICS)
        self.head: ScoreHead = SCORE_HEADS[settings.head](visual_width + _BERT_WIDTH + _NUM_ACOUSTICS, num_levels)

    @torch.no_grad()
    def begin_as(self, visual: ScoreHead) -> None:
        """Score as `visual` does, to begin with: X_sp and X_aud are 0, and the head is that one with small weights for them.

        [choice] The paper says nothing of how its second stage starts. From a head at random the ranking that the visual part
        has learnt is lost: on simulated clips the loss ended at 0.59 and 0.56 instead of 0.29 and 0.10 (two seeds).
        """
        for weights in (self.fc.weight, self.fc.bias, self.norm.norm.weight):
            weights.zero_()
        for own, theirs in zip(self.head.parameters(), visual.parameters(), strict=True):
            if own.shape == theirs.shape:
                own.copy_(theirs)
            else:
                own[..., : theirs.shape[-1]] = theirs
                own[..., theirs.shape[-1] :] *= _SMALL

    def forward(self, x_BE: Tensor, inputs: ClipInputs) -> tuple[Tensor, Tensor]:
        """(joint_BE, speaks_B): X', and whether a clip has speech and acoustics; where not, both parts are 0 in X'."""
        dtype = self.fc.weight.dtype
        speaks_B = _has(inputs, SPEECH, x_BE) & _has(inputs, ACOUSTICS, x_BE)
        bert_BS = _columns(inputs, SPEECH, _BERT_WIDTH, x_BE).to(dtype)
        acoustics_BA = _columns(inputs, ACOUSTICS, _NUM_ACOUSTICS, x_BE).to(dtype)
        speech_BS = self.fc(bert_BS).masked_fill(~speaks_B.unsqueeze(1), 0)  # (5) X_sp = FC(BERT(speech))
        acoustics_BA = self.norm(acoustics_BA, speaks_B)  # (6) X_aud = [L, Hv, Lv, Hp, Lp, std_v, std_p]
        return torch.cat([x_BE, speech_BS.to(x_BE.dtype), acoustics_BA.to(x_BE.dtype)], dim=1), speaks_B  # (7)


class Mlp1(nn.Module):
    """MLP1 of eq. 1: two fully connected layers with dropout, the last C wide. [choice] ReLU and dropout between them."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(width, hidden), nn.Linear(hidden, hidden)
        self.dropout = KeyedDropout(dropout, _MLP1_SALT)

    def forward(self, i3d_BI: Tensor, draw_keys_B: Tensor) -> Tensor:
        out_BC: Tensor = self.last(self.dropout(functional.relu(self.first(i3d_BI)), draw_keys_B))
        return out_BC


def _temporal(settings: MocoRankSettings, features: int) -> nn.Module:
    sizes = (features, settings.hidden, settings.levels)
    if settings.temporal == "tcn":
        return DilatedTcn(*sizes, settings.kernel, settings.dropout)
    if settings.temporal == "bilstm":
        return BiLstm(*sizes, settings.dropout)
    return Transformer(*sizes, settings.heads, settings.dropout)


def _has(inputs: ClipInputs, name: str, like: Tensor) -> Tensor:
    """bool (B,): whether a clip has the feature; without lengths, all have what is there."""
    lengths_B = inputs.lengths.get(name)
    if lengths_B is None:
        return torch.full((len(like),), name in inputs.features, device=like.device)
    return lengths_B > 0


def _columns(inputs: ClipInputs, name: str, width: int, like: Tensor) -> Tensor:
    """The first `width` numbers of each clip's feature, zeros where no clip of the batch has it: (B, 0) then."""
    values = inputs.features.get(name)
    if values is None or values.shape[1] == 0:
        return like.new_zeros(len(like), width)
    if values.dim() != 2 or values.shape[1] < width or (name == SPEECH and values.shape[1] != width):
        raise ConfigError(
            f"'{name}' is {_shape(values)} a clip in the data, the model reads {width} numbers of it; extract it again, "
            "or set model.speech=false"
        )
    return values[:, :width]


def _unfit(name: str, values: Tensor, setting: str, width: int) -> ConfigError:
    return ConfigError(
        f"'{name}' is {_shape(values)} a clip in the data, and model.{setting} is {width}; set model.{setting} to fit"
    )


def _shape(values: Tensor) -> str:
    return "x".join(map(str, values.shape[1:]))
