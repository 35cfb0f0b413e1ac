"""Makes one clip: everything about it follows from the settings and its plan."""

from pathlib import Path

from data_shards.atomic import whole_file
from data_shards.simulation.behaviour import simulate_behaviour
from data_shards.simulation.cohort import PlannedClip, clip_rng, person_rng
from data_shards.simulation.encode import write_mp4
from data_shards.simulation.person import draw_person
from data_shards.simulation.render import Portrait
from data_shards.simulation.settings import SimulationSettings
from data_shards.simulation.sidecars import behaviour_json, openface_csv, transcript_vtt
from data_shards.simulation.sound import synthesise_sound


def clip_files(folder: Path, clip: PlannedClip) -> dict[str, Path]:
    """The four files of a clip: "openface", "transcript", "behaviour" and, written last, "video"."""
    return {
        "openface": folder / "openface" / f"{clip.clip_id}.csv",
        "transcript": folder / "transcripts" / f"{clip.clip_id}.vtt",
        "behaviour": folder / "behaviour" / f"{clip.clip_id}.json",
        "video": folder / "clips" / f"{clip.clip_id}.mp4",
    }


def make_clip(settings: SimulationSettings, clip: PlannedClip, folder: Path) -> None:
    """Writes the four files of a clip, each whole or not at all."""
    rng = clip_rng(settings.seed, clip.index)
    track = simulate_behaviour(clip.label, settings.duration_s, settings.fps, rng)
    person = draw_person(person_rng(settings.seed, clip.subject_index))
    files = clip_files(folder, clip)
    texts = {
        "openface": openface_csv(track, rng),
        "transcript": transcript_vtt(track, rng),
        "behaviour": behaviour_json(clip, track),
    }
    for name, text in texts.items():
        with whole_file(files[name], durable=False) as beside:
            beside.write_text(text, encoding="utf-8")
    sound_S = synthesise_sound(person, track, rng)
    portrait = Portrait(person, width_px=settings.width_px, height_px=settings.height_px, rng=rng)
    with whole_file(files["video"], durable=False) as beside:
        write_mp4(
            beside,
            portrait.frames(track),
            sound_S,
            title=clip.clip_id,
            fps=settings.fps,
            width_px=settings.width_px,
            height_px=settings.height_px,
        )
