"""Which test states which fault: `pytest -k F028` runs those of fault 28.

The numbers are those of the list of bad inputs and faults that the project holds itself to. A test whose own name
carries the number is not listed here again.
"""

STATED = {
    # Broken or lying TIFF
    1: ["test_files_that_are_not_images"],
    2: ["test_files_that_are_not_images"],
    3: ["test_a_truncated_file_is_an_error_wherever_it_was_cut"],
    4: [
        "test_a_truncated_file_is_an_error_wherever_it_was_cut",
        "test_truncation_is_found_even_where_tifffile_may_not_log",
    ],
    5: [
        "test_a_truncated_file_is_an_error_wherever_it_was_cut",
        "test_truncation_is_found_even_where_tifffile_may_not_log",
    ],
    6: ["test_missing_planes_are_an_error", "test_planes_that_only_the_metadata_declare_are_an_error"],
    7: ["test_a_part_of_several_files_is_refused_and_the_others_are_not_opened"],
    8: ["test_a_part_of_several_files_is_refused_and_the_others_are_not_opened"],
    9: ["test_a_circular_chain_of_pages_is_an_error"],
    10: ["test_damaged_pixels_are_an_error", "test_strips_that_end_early_are_an_error"],
    12: ["test_a_header_that_declares_too_much_memory_is_an_error"],
    14: ["test_an_entity_bomb_is_an_error"],
    15: ["test_damaged_ome_xml_is_ignored_and_noted"],
    16: ["test_ambiguous_axes_are_refused_with_the_guess_and_the_option"],
    17: ["test_planes_stored_as_samples_are_not_silently_colours"],
    18: ["test_pixels_are_exact"],
    19: ["test_pixels_are_exact", "test_a_palette_is_applied_but_a_lookup_table_of_imagej_is_not"],
    20: [
        "test_pixels_are_exact",
        "test_a_pyramid_gives_its_finest_level",
        "test_several_images_in_one_file_are_an_error",
    ],
    21: ["test_an_invalid_pixel_size_is_unknown_and_noted", "test_an_invalid_resolution_tag_is_ignored"],
    22: [
        "test_x_and_y_may_differ",
        "test_a_volume_without_a_distance_of_planes_is_not_calibrated",
    ],
    23: ["test_a_stated_pixel_size_is_read_to_the_last_digit"],
    24: ["test_any_name_is_a_path_and_never_a_pattern", "test_a_file_whose_name_looks_like_a_pattern"],
    # Broken or lying NIfTI
    26: ["test_every_cut_is_refused"],
    27: ["test_every_cut_is_refused"],
    28: ["test_every_flipped_bit_is_harmless_or_refused", "test_no_damage_is_silent_where_a_checksum_covers_it"],
    29: ["test_data_behind_the_stream"],
    30: ["test_the_content_decides_and_not_the_name"],
    31: ["test_files_that_are_not_a_nifti", "test_a_bomb_is_refused_before_it_takes_memory"],
    32: ["test_a_bomb_is_refused_before_it_takes_memory"],
    33: ["test_files_that_are_not_a_nifti", "test_scaling_is_applied_where_it_changes_values"],
    34: ["test_invalid_geometry_is_an_error"],
    35: ["test_a_header_without_an_affine"],
    36: ["test_the_qform_is_used_without_an_sform", "test_labels_have_the_affine_of_their_source"],
    37: ["test_invalid_geometry_is_an_error"],
    38: ["test_several_volumes_in_one_file_are_ambiguous"],
    39: [
        "test_one_slice_is_an_image_and_a_volume",
        "test_an_axis_of_thick_slices_is_neither_shuffled_nor_pooled_first",
    ],
    40: ["test_a_misaligned_annotation_is_refused", "test_an_annotation_of_another_shape_is_an_error"],
    41: ["test_channels_on_different_grids", "test_a_channel_that_is_missing_or_too_many"],
    # Odd but legal pixels
    47: ["test_pixels_that_are_not_numbers_are_errors", "test_voxels_that_are_not_numbers"],
    48: ["test_a_constant_image_is_noted", "test_an_image_without_contrast_has_no_cells_and_says_so", "test_blank"],
    49: ["test_any_size_of_image", "test_any_size_of_volume", "test_the_output_lies_on_the_grid_of_the_input"],
    50: ["test_any_size_of_image", "test_tiling_is_invisible"],
    52: ["test_more_objects_than_uint16_holds", "test_7_labels_stay_integers"],
    53: ["test_large_ids_are_exact", "test_label_dtypes_and_read_only_labels"],
    54: ["test_tiling_is_invisible", "test_tiling_is_invisible_in_volumes"],
    55: ["test_tiling_is_invisible", "test_constant_maps"],
    56: [
        "test_components_touch_at_corners",
        "test_ring_has_two_outlines_and_a_hole",
        "test_only_a_hole_of_one_object_is_filled",
    ],
    57: ["test_constant_maps", "test_a_cell_without_an_edge_has_no_distance"],
    58: ["test_one_pixel", "test_line", "test_diagonal_line", "test_a_volume_that_touches_the_border_in_one_slice"],
    59: [
        "test_an_image_without_cells_is_empty_or_flagged_and_no_error",
        "test_an_empty_table_keeps_all_columns",
    ],
    60: ["test_invalid_labels", "test_values_that_no_class_has_are_errors"],
    61: ["test_images_that_do_not_fit_are_refused"],
    62: ["test_objects", "test_object_sizes_are_compared_at_the_working_zoom"],
    63: ["test_mostly_bright", "test_saturated"],
    # Training data
    64: [
        "test_an_annotation_without_a_label_is_an_error",
        "test_nothing_labelled",
        "test_a_patch_without_labels_costs_nothing",
        "test_nothing_to_train_on_is_an_error",
    ],
    65: ["test_values_that_no_class_has_are_errors", "test_colours_outside_the_palette_are_listed"],
    66: ["test_everything_without_a_partner_is_listed_at_once", "test_check_lists_everything_at_once"],
    67: ["test_check_lists_everything_at_once"],
    68: ["test_values_that_no_class_has_are_errors"],
    69: ["test_a_loss_that_is_no_number_stops_and_names_the_images"],
    70: [
        "test_what_stands_at_unlabelled_voxels_changes_no_bit_of_the_loss",
        "test_a_patch_without_labels_costs_nothing",
    ],
    71: ["test_check_lists_everything_at_once"],
    72: ["test_nothing_to_train_on_is_an_error", "test_lab_scientist_teaches_the_model_with_one_outlined_window"],
    # Recipes, models, security
    74: [
        "test_a_misspelt_key_names_the_nearest",
        "test_a_wrong_value_is_named",
        "test_a_missing_and_a_broken_file_are_one_line_each",
    ],
    75: ["test_nothing_runs_code_from_data_or_reaches_a_network_F076_F080_F081_F085"],
    77: [
        "test_a_damaged_or_foreign_model_file_is_refused",
        "test_a_model_that_has_changed_is_refused_and_one_without_a_checksum_is_read",
    ],
    79: [
        "test_a_damaged_or_foreign_model_file_is_refused",
        "test_a_checkpoint_of_other_settings_or_a_damaged_one_is_refused",
    ],
    82: ["test_no_path_leads_out_of_the_folder"],
    83: ["test_cells_that_a_spreadsheet_would_run_get_an_apostrophe"],
    84: [
        "test_names_and_messages_are_text",
        "test_content_security_policy_allows_only_its_script_and_style",
        "test_loads_nothing_from_elsewhere",
    ],
    42: ["test_a_series_that_is_no_volume_says_why"],
    45: [
        "test_absent_chunks_are_the_fill_value_and_are_counted",
        "test_a_damaged_chunk_is_named",
        "test_a_damaged_shard_is_named_and_others_are_read",
        "test_writers_that_are_killed_leave_whole_shards_or_none",
        "test_what_is_wrong_is_named_whether_an_image_is_made_again_or_not",
    ],
    46: [
        "test_a_region_is_that_of_the_image_in_memory",
        "test_what_is_wrong_with_a_store_is_one_line",
        "test_what_is_absent_is_counted_by_what_is_there",
    ],
    51: [
        "test_an_image_of_100_gigapixels_is_planned_within_the_memory_that_is_given",
        "test_super_blocks_give_what_memory_gives",
    ],
    43: ["test_a_series_that_is_no_volume_says_why", "test_what_is_no_image_is_left_out_with_the_reason"],
    44: ["test_a_directory_file_is_not_followed"],
    # Machine and process
    87: ["test_a_kill_at_any_write_leaves_no_half_file_and_the_same_call_completes"],
    88: [
        "test_an_interrupted_training_ends_with_the_weights_of_an_unbroken_one",
        "test_a_killed_write_does_not_block_the_next",
    ],
    89: [
        "test_the_first_signal_asks_and_the_second_ends",
        "test_the_command_stops_on_sigterm_and_the_same_command_continues",
    ],
    90: [
        "test_each_shard_does_its_part_and_the_last_table_holds_all",
        "test_a_stopped_batch_says_how_far_it_came_and_goes_on_from_there",
    ],
    91: [
        "test_a_lock_keeps_others_out_and_ends_with_its_holder",
        "test_what_another_process_works_on_is_waited_for",
    ],
    92: [
        "test_a_disk_that_is_full_at_any_write_costs_nothing_that_was_done",
        "test_disk_errors_have_a_hint",
    ],
    93: [
        "test_an_output_folder_that_cannot_be_written_to",
        "test_an_output_folder_that_is_a_file",
        "test_the_longest_names_can_be_written",
    ],
    98: ["test_when_memory_runs_out_blocks_become_smaller_and_labels_stay"],
    99: ["test_models_that_are_not_there_are_refused", "test_errors_are_one_line_with_the_right_code"],
    # Paths, platform, locale
    104: [
        "test_names_of_results",
        "test_a_name_that_is_no_text_is_escaped_and_done_once",
        "test_undecodable_names",
    ],
    105: ["test_inputs_whose_results_would_have_one_name_fail_alone", "test_names_of_results"],
    106: ["test_files_that_are_not_images", "test_links_to_folders_are_followed_but_not_in_circles"],
}

NOT_STATED = {
    100: "needs a machine with little shared memory, which workers of a training use; readers send through pipes",
    101: "one process trains",
}


def faults_of(name: str) -> set[str]:
    """Return the faults that a test states."""
    return {f"F{number:03d}" for number, tests in STATED.items() if name.partition("[")[0] in tests}
