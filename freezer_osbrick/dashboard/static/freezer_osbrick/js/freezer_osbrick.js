// SPDX-License-Identifier: Apache-2.0
// Shows, in Freezer's form for actions and on the page of a restore, the fields that count.
(function () {
  'use strict';

  // Fields of this plug-in, by the action that they are for.
  var FOR = {
    backup: ['osbrick_scope', 'osbrick_volumes', 'osbrick_volume_ids', 'osbrick_groups',
      'osbrick_content', 'osbrick_fallback_to_blocks', 'osbrick_cold', 'osbrick_incremental',
      'osbrick_max_level', 'osbrick_compression', 'osbrick_remove_older_than', 'osbrick_parallel',
      'osbrick_encrypt_pass_file', 'osbrick_endpoint', 'osbrick_access_key'],
    restore: ['osbrick_scope', 'osbrick_volumes', 'osbrick_volume_ids', 'osbrick_groups',
      'osbrick_target', 'osbrick_new_name', 'osbrick_volume_type', 'osbrick_availability_zone',
      'osbrick_meta_override', 'osbrick_verify', 'osbrick_recreate_vol_on_error',
      'osbrick_remove_old_vol', 'osbrick_consent', 'osbrick_parallel', 'osbrick_encrypt_pass_file', 'osbrick_endpoint',
      'osbrick_access_key'],
    admin: ['osbrick_encrypt_pass_file', 'osbrick_endpoint', 'osbrick_access_key']
  };
  // Fields of the other tabs that mean nothing for volumes.
  var FOREIGN = ['mode', 'cinder_vol_id', 'cindernative_vol_id', 'fullbackup_rotation',
    'nova_inst_id', 'glance_image_id', 'nova_restore_network', 'path_to_backup', 'restore_abs_path',
    'get_object', 'dst_file', 'mysql_conf', 'sql_server_conf', 'compression', 'max_segment_size',
    'no_incremental', 'max_level', 'always_level', 'restart_always_level', 'dereference_symlink',
    'encryption_password'];

  function group(name) {
    var box = $('#box_' + name);
    return box.length ? box : $('#id_' + name).closest('.form-group');
  }

  function show(name, wanted) {
    group(name).toggle(wanted);
  }

  function tab(slug) {
    var pane = '="#action__' + slug + '"]';
    return $('a[href$' + pane + ', a[data-target$' + pane).closest('li');
  }

  function syncDanger() {
    var in_place = $('#id_osbrick_target').val() === 'in_place';
    var remove = group('osbrick_remove_old_vol');
    remove.toggle(!in_place && group('osbrick_target').css('display') !== 'none');
    ['osbrick_volume_type', 'osbrick_availability_zone', 'osbrick_new_name',
      'osbrick_recreate_vol_on_error'].forEach(function (name) {
      show(name, !in_place && group('osbrick_target').css('display') !== 'none');
    });
    var removes = $('#id_osbrick_remove_old_vol').is(':checked') && !in_place;
    show('osbrick_consent',
      (in_place || removes) && group('osbrick_target').css('display') !== 'none');
  }

  function syncForm() {
    var engine = $('#id_engine_name');
    if (!engine.length || !$('#freezer_osbrick_step').length) {
      return;
    }
    var action = $('#id_action').val();
    var ours = engine.val() === 'osbrick';
    if (action === 'admin') {
      // Freezer's own script hides them, and a removal would go to another engine's backups.
      ['engine_name', 'storage', 'container', 'backup_name'].forEach(function (name) {
        show(name, true);
      });
    }
    tab('osbrick').toggle(ours);
    tab('snapshotconfigurationaction').toggle(!ours);
    $('#freezer_osbrick_other').toggle(!ours);
    if (ours) {
      $('#id_mode').val('cinder');
      FOREIGN.forEach(function (name) { show(name, false); });
      show('get_object', false);
      show('dst_file', false);
    } else {
      ['compression', 'max_segment_size', 'no_incremental', 'max_level', 'always_level',
        'restart_always_level', 'dereference_symlink', 'encryption_password'].forEach(
        function (name) { show(name, true); });
    }
    Object.keys(FOR).forEach(function (other) {
      FOR[other].forEach(function (name) { show(name, false); });
    });
    (FOR[action] || []).forEach(function (name) { show(name, true); });
    var scope = $('#id_osbrick_scope').val();
    var chooses = action === 'backup' || action === 'restore';
    show('osbrick_volumes', chooses && scope === 'single_volume_id');
    show('osbrick_volume_ids', chooses && scope === 'single_volume_id');
    show('osbrick_groups', chooses && scope === 'consistency_groups');
    show('osbrick_max_level', action === 'backup' && $('#id_osbrick_incremental').is(':checked'));
    show('osbrick_fallback_to_blocks',
      action === 'backup' && $('#id_osbrick_content').val() === 'files');
    var s3 = $('#id_storage').val() === 's3';
    show('osbrick_endpoint', s3);
    show('osbrick_access_key', s3);
    syncDanger();
  }

  function sync() {
    syncForm();
    if ($('#freezer_osbrick_restore').length) {
      syncDanger();
    }
  }

  // Freezer's own handlers are bound to the fields, so they have run when the event comes up here.
  $(document).on('change',
    '#id_action, #id_mode, #id_storage, #id_engine_name, [id^="id_osbrick_"]', sync);
  $(document).on('show.bs.modal shown.bs.modal new_modal', '.modal', sync);
  if (typeof horizon !== 'undefined') {
    horizon.addInitFunction(sync);
  } else {
    $(sync);
  }
}());
