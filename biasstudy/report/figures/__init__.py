"""Figures: results in, Figure out. One style for all; every figure is saved as PNG and PDF with the
table it draws.

Arms have fixed colours and markers (Okabe-Ito, told apart in grey print by marker and dash). A thin
line is one seed, a thick one the mean over seeds. `_pictures` shows images, `_curves` metrics over
generations, `_shares` what batches are made of, `_families` several variants of a study side by
side, `_locality` shares against the window of a generator, `_feedback` what it does that groups
follow how well they are served, `_dynamics` where bias is going,
`_masks` what is measured on images with masks, `_secondary` other metrics than the headline,
`_summary` all stored results.
"""

from ._curves import cell_accuracy as cell_accuracy
from ._curves import curve_table as curve_table
from ._curves import curves as curves
from ._dynamics import convergence as convergence
from ._dynamics import levels as levels
from ._dynamics import naive as naive
from ._dynamics import predictions as predictions
from ._dynamics import transfer as transfer
from ._families import PALETTE as PALETTE
from ._families import acceptance as acceptance
from ._families import batch_table as batch_table
from ._families import decomposition as decomposition
from ._families import forest as forest
from ._families import grid as grid
from ._families import plane as plane
from ._families import pool_table as pool_table
from ._families import share_and_accuracy as share_and_accuracy
from ._feedback import feedback_table as feedback_table
from ._feedback import fresh_counts as fresh_counts
from ._feedback import with_feedback as with_feedback
from ._locality import locality as locality
from ._masks import ablations as ablations
from ._masks import mask_table as mask_table
from ._masks import sensitivity as sensitivity
from ._masks import sensitivity_table as sensitivity_table
from ._pictures import counts_table as counts_table
from ._pictures import data_picture as data_picture
from ._pictures import samples as samples
from ._secondary import secondary as secondary
from ._shares import corrected_table as corrected_table
from ._shares import shares as shares
from ._style import COLUMN_DPI as COLUMN_DPI
from ._style import DPI_VARIABLE as DPI_VARIABLE
from ._style import TRAINED as TRAINED
from ._style import WIDTH as WIDTH
from ._style import mark_of as mark_of
from ._style import packed as packed
from ._style import save as save
from ._style import signed as signed
from ._style import use_style as use_style
from ._summary import calibration as calibration
from ._summary import dose as dose
from ._summary import effects as effects
from ._summary import glance as glance
from ._summary import nearest as nearest
from ._summary import ways as ways
