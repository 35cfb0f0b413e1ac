"""Gallery recordings to clips: each person's tile found, cropped and cut by utterances (CMOSE's collection step, Wu et al. 2023).

The paper names the step and gives no algorithm; every decision of ours is marked [choice] where it is made.
"""
