from .fields import FieldSettings as FieldSettings
from .fields import draw_field_settings as draw_field_settings
from .fields import make_field as make_field
from .volumes import StackSettings as StackSettings
from .volumes import draw_stack_settings as draw_stack_settings
from .volumes import make_head as make_head
from .volumes import make_stack as make_stack
